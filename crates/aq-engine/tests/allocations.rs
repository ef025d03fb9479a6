//! The loop over row blocks allocates nothing once its buffers are there: counted by an allocator of this program's own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use aq_core::{
    EncodedRows, Estimate, LayerInputs, LayerPlan, LayerStats, QuantStrategy, RowQuantizer, Rows, Scratch,
    StrategyError, StrategyId, TensorInfo,
};
use aq_engine::{Job, JobOptions, Registry, Silent};
use aq_spatial::{Gptq, LeastSquares, MinMax};

/// Allocations of the whole program, and of the threads that quantize.
static ALL: AtomicU64 = AtomicU64::new(0);
static WORKERS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

fn count() {
    ALL.fetch_add(1, Relaxed);
    if IS_WORKER.try_with(Cell::get).unwrap_or(false) {
        WORKERS.fetch_add(1, Relaxed);
    }
}

// SAFETY: every call is handed on to the allocator of the system unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as promised to this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as promised to this function.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as promised to this function.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as promised to this function.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A strategy that marks the threads it runs on.
struct Marked<S>(S, &'static str);

impl<S: QuantStrategy> QuantStrategy for Marked<S> {
    fn id(&self) -> StrategyId {
        StrategyId::new(self.1)
    }

    fn supports(&self, layer: &TensorInfo) -> bool {
        self.0.supports(layer)
    }

    fn estimate(&self, layer: &TensorInfo, stats: &LayerStats<'_>, plan: &LayerPlan) -> Estimate {
        self.0.estimate(layer, stats, plan)
    }

    fn prepare<'a>(
        &'a self,
        layer: &LayerInputs<'a>,
        plan: &LayerPlan,
    ) -> Result<Box<dyn RowQuantizer + 'a>, StrategyError> {
        Ok(Box::new(MarkedRows(self.0.prepare(layer, plan)?)))
    }
}

struct MarkedRows<'a>(Box<dyn RowQuantizer + 'a>);

impl RowQuantizer for MarkedRows<'_> {
    fn quantize_rows(
        &self,
        rows: Rows<'_>,
        scratch: &mut Scratch,
        out: &mut EncodedRows,
    ) -> Result<(), StrategyError> {
        IS_WORKER.set(true);
        self.0.quantize_rows(rows, scratch, out)
    }
}

/// Rows of the only tensor that make one slab.
const SLAB_ROWS: usize = 1024;
const COLS: usize = 1024;

/// A safetensors file of one bf16 matrix of `slabs` equal slabs.
fn write_model(path: &Path, slabs: usize) {
    let bytes = 2 * slabs * SLAB_ROWS * COLS;
    let header = format!(
        r#"{{"blocks.0.fc.weight":{{"dtype":"BF16","shape":[{},{COLS}],"data_offsets":[0,{bytes}]}}}}"#,
        slabs * SLAB_ROWS
    );
    // Numbers between 1/16 and 1/4 of either sign.
    let weight = |i: usize| {
        let random = (i as u32).wrapping_mul(0x9e37_79b9).rotate_left(11).wrapping_mul(0x85eb_ca6b) >> 16;
        ((random & 0x80ff) + 0x3d80) as u16
    };
    let slab: Vec<u8> = (0..SLAB_ROWS * COLS).flat_map(|i| weight(i).to_le_bytes()).collect();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    (0..slabs).for_each(|_| file.extend_from_slice(&slab));
    std::fs::write(path, file).expect("a temporary folder takes a file");
}

/// A safetensors file of 48 input rows of that matrix, too few to hold some out.
fn write_samples(path: &Path) {
    let values = (0..48 * COLS).map(|i| ((i as u32).wrapping_mul(0x9e37_79b9) >> 24) as f32 - 127.5);
    let header = format!(
        r#"{{"blocks.0.fc":{{"dtype":"F32","shape":[1,48,{COLS}],"data_offsets":[0,{}]}}}}"#,
        4 * 48 * COLS
    );
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend(values.flat_map(f32::to_le_bytes));
    std::fs::write(path, file).expect("a temporary folder takes a file");
}

/// Allocations of the workers and of the whole job.
fn allocations(folder: &Path, slabs: usize, options: JobOptions) -> (u64, u64) {
    let (input, output) = (folder.join(format!("{slabs}.safetensors")), folder.join("out.parquet"));
    let mut registry = Registry::default();
    registry.register(Box::new(Marked(MinMax, "test.minmax")));
    registry.register(Box::new(Marked(LeastSquares, "test.ls")));
    registry.register(Box::new(Marked(Gptq, "test.gptq")));
    let options = JobOptions { input, output: Some(output), force: true, ..options };
    let job = Job::new(options, &registry).expect("valid options");
    let before = (WORKERS.load(Relaxed), ALL.load(Relaxed));
    aq_engine::run(&job, &registry, &AtomicBool::new(false), &mut Silent).expect("the job runs");
    (WORKERS.load(Relaxed) - before.0, ALL.load(Relaxed) - before.1)
}

#[test]
fn a_slab_more_is_no_allocation_more() {
    const FEW: usize = 8;
    const MANY: usize = 72;
    let folder = tempfile::tempdir().expect("a temporary folder");
    for slabs in [FEW, MANY] {
        write_model(&folder.path().join(format!("{slabs}.safetensors")), slabs);
    }
    let samples = folder.path().join("samples.safetensors");
    write_samples(&samples);
    // What a program allocates once, whatever it does.
    allocations(folder.path(), FEW, JobOptions::default());
    let cases =
        [("test.minmax", 1, false), ("test.minmax", 2, true), ("test.ls", 2, false), ("test.gptq", 2, false)];
    for (method, threads, streaming) in cases {
        let options = || JobOptions {
            method: Some(method.into()),
            calibration: (method == "test.gptq").then(|| samples.clone()),
            bits: Some(4),
            threads: Some(threads),
            streaming: Some(streaming),
            ..JobOptions::default()
        };
        let (few, few_all) = allocations(folder.path(), FEW, options());
        let (many, many_all) = allocations(folder.path(), MANY, options());
        let per_slab = many_all.saturating_sub(few_all) as f64 / (MANY - FEW) as f64;
        println!("{method}: workers {few}, then {many}; the whole job {few_all}, then {many_all}");
        // How many buffers there are, up to 8 of 4 parts, depends on how far the workers come before the writer.
        assert!(many <= few + 32, "{method}: the workers allocate {few} times, then {many} times");
        // A page takes a description, a header and its bytes in parquet2, and the result is read back page by page.
        assert!(per_slab < 40.0, "{method}: {per_slab} allocations a slab");
    }
}
