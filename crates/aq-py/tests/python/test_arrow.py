"""The Arrow PyCapsule interface: pyarrow, polars and DuckDB take it, and codes stay where they lie."""
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import DIGITS, write_safetensors

import arrow_quant as aq

QKV = "blocks.0.attn.qkv.weight"


@pytest.fixture(scope="module", params=["parquet", "arrow"])
def large(request, tmp_path_factory):
    """A model of tensors with several slabs, with one, and one that is kept."""
    folder, random = tmp_path_factory.mktemp("large"), np.random.default_rng(0)
    weights = {
        "a.weight": random.standard_normal((2100, 1024), np.float32),
        "b.weight": random.standard_normal((64, 256), np.float32),
        "c.bias": random.standard_normal(33, np.float32),
    }
    write_safetensors(folder / "m.safetensors", weights)
    path = folder / f"q.{request.param}"
    aq.quantize(folder / "m.safetensors", path, tensor_type=["a=ls:4:64", "b=ls:3:32"], rotation=True)
    return path


def address(buffer):
    """Where the values of a binary array begin."""
    return buffer.buffers()[2].address + np.frombuffer(buffer.buffers()[1], np.int64)[buffer.offset]


def file_offset(path, address):
    """Where an address of a mapped file lies in it."""
    for line in open("/proc/self/maps"):
        fields = line.split()
        low, high = (int(end, 16) for end in fields[0].split("-"))
        if line.rstrip().endswith(str(path)) and low <= address < high:
            return address - low + int(fields[2], 16)
    return None


def test_the_stream_has_what_the_file_has(large):
    table = pa.table(aq.open(large))
    if large.suffix == ".parquet":
        written = pq.read_table(large)
    else:
        written = pa.ipc.open_file(large).read_all()
    assert table.schema.remove_metadata() == written.schema.remove_metadata()
    assert table.to_pylist() == written.to_pylist()
    assert table.schema.metadata[b"aq.format_version"] == b"1"
    assert [len(batch) for batch in table.to_batches()] == [1] * 5


def test_a_table_written_by_pyarrow_is_a_model_again(large, tmp_path):
    model = aq.open(large)
    pq.write_table(pa.table(model), tmp_path / "again.parquet", use_dictionary=False, compression="zstd")
    again = aq.open(tmp_path / "again.parquet")
    assert again.metadata["aq.plan"] == model.metadata["aq.plan"]
    for name, tensor in model.items():
        assert np.array_equal(again[name].dequantize(), tensor.dequantize()), name


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs /proc")
def test_codes_are_those_of_the_mapped_file(large):
    model, content = aq.open(large), large.read_bytes()
    chunks = pa.table(model)["codes"].chunks
    slabs = [(name, codes) for name, t in model.items() for codes in ([s.codes for s in t.slabs] if t.is_quantized else [t.codes])]
    assert len(chunks) == len(slabs) == 5
    for chunk, (name, codes) in zip(chunks, slabs, strict=True):
        assert address(chunk) == codes.__array_interface__["data"][0], name
        at = file_offset(large, address(chunk))
        assert content[at : at + codes.nbytes] == codes.tobytes(), name
    assert model["a.weight"].slabs[1].codes.nbytes == 1024 * 1024 // 2


def test_buffers_outlive_the_model(large):
    table = pa.table(aq.open(large))
    assert table.to_pylist() == pa.table(aq.open(large)).to_pylist()
    stream = pa.RecordBatchReader.from_stream(aq.open(large))
    assert stream.read_next_batch()["tensor"].to_pylist() == ["a.weight"]


def test_polars(large):
    import polars as pl

    model = aq.open(large)
    frame = pl.DataFrame(model)
    assert frame["tensor"].to_list() == ["a.weight"] * 3 + ["b.weight", "c.bias"]
    assert frame["codes"].to_list() == pa.table(model)["codes"].to_pylist()
    assert frame["shape"].to_list()[0] == [2100, 1024]
    assert pl.DataFrame(model["b.weight"])["bits"].to_list() == [3]


def test_duckdb(large):
    import duckdb

    model = aq.open(large)
    query = "SELECT tensor, bits, sum(octet_length(codes)) FROM model GROUP BY 1, 2 ORDER BY 1"
    sizes = [(name, t.bits or 32, t.codes.nbytes) for name, t in model.items()]
    assert duckdb.sql(query).fetchall() == sizes
    assert duckdb.sql(query).fetchall() == sizes


def test_one_tensor(large):
    model = aq.open(large)
    batch = pa.record_batch(model["b.weight"])
    assert batch.num_rows == 1
    assert address(batch["codes"]) == model["b.weight"].codes.__array_interface__["data"][0]
    joined = pa.record_batch(model["a.weight"])
    assert joined["row_start"].to_pylist() == [0, 1024, 2048]
    assert b"".join(joined["codes"].to_pylist()) == model["a.weight"].codes.tobytes()
    assert joined.to_pylist() == pa.table(model["a.weight"]).to_pylist()
    chunks = pa.table(model["a.weight"])["codes"].chunks
    assert [address(c) for c in chunks] == [s.codes.__array_interface__["data"][0] for s in model["a.weight"].slabs]
    assert pa.array(model["b.weight"]).type == pa.struct(pa.schema(model))


def test_an_array_in_memory_is_a_row_too():
    q = aq.quantize_array(np.random.default_rng(0).standard_normal((32, 64)), bits=4, method="ls")
    [row] = pa.table(q).to_pylist()
    assert (row["codec"], row["shape"], row["codes"]) == ("affine", [32, 64], q.codes.tobytes())


def test_a_plain_model_is_a_stream_of_raw_slabs():
    rows = pa.table(aq.open(DIGITS)).to_pylist()
    assert {row["codec"] for row in rows} == {"raw"}
    weights = aq.open(DIGITS)[QKV]
    [row] = [row for row in rows if row["tensor"] == QKV]
    assert row["codes"] == weights.codes.tobytes() and row["bits"] == 16


def test_damage_is_an_error_of_the_stream(quantized, tmp_path):
    content, codes = bytearray(quantized.read_bytes()), aq.open(quantized)[QKV].codes.tobytes()
    content[content.index(codes) + 100] ^= 1
    (tmp_path / "bad.parquet").write_bytes(content)
    model = aq.open(tmp_path / "bad.parquet")
    with pytest.raises(Exception, match="blocks.0.attn.qkv"):
        pa.table(model)
    with pytest.raises(aq.InputError, match="blocks.0.attn.qkv"):
        pa.record_batch(model[QKV])
