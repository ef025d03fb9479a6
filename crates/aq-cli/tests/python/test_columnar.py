"""The files open in other programs, which agree with each other and with `aq`."""
import json

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import native_format
from conftest import DIGITS, aq, aq_json, write_model
from small_models import load_safetensors

COLUMNS = ["tensor", "row_start", "row_count", "shape", "src_dtype", "codec", "bits", "group_size", "codes", "scales",
           "offsets", "extra", "xxh3"]
INTEGERS = {"row_start": "int64", "row_count": "int64", "bits": "uint8", "group_size": "int32", "xxh3": "uint64"}


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    out = tmp_path_factory.mktemp("columnar") / "digits.parquet"
    aq("quantize", DIGITS, "-o", out, "--bits", 4, "--method", "ls", "--quiet")
    return out


def open_arrow(path):
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def test_columns_have_their_types(parquet):
    schema = pq.read_schema(parquet)
    assert schema.names == COLUMNS
    for name, kind in INTEGERS.items():
        assert str(schema.field(name).type) == kind
    assert schema.field("shape").type.value_type == pa.int64()
    for name in ("tensor", "src_dtype", "codec"):
        assert pa.types.is_string(schema.field(name).type)
    for name in ("codes", "scales", "offsets", "extra"):
        kind = schema.field(name).type
        assert pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    assert not any(field.nullable for field in schema)


def test_codes_are_plain_and_uncompressed_without_statistics(parquet):
    metadata = pq.read_metadata(parquet)
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            assert "PLAIN" in column.encodings and not column.has_dictionary_page
            assert column.statistics is None
            if column.path_in_schema == "codes":
                assert column.compression == "UNCOMPRESSED"


def test_pyarrow_duckdb_and_polars_agree_on_every_column(parquet):
    by_pyarrow = pq.read_table(parquet)
    by_duckdb = duckdb.sql(f"SELECT * FROM read_parquet('{parquet.as_posix()}')")
    by_polars = polars.read_parquet(parquet)
    assert list(by_duckdb.columns) == by_polars.columns == COLUMNS
    rows = by_duckdb.fetchall()
    for index, name in enumerate(COLUMNS):
        expected = by_pyarrow[name].to_pylist()
        assert [row[index] for row in rows] == expected, name
        assert by_polars[name].to_list() == expected, name


def test_group_by_counts_the_bytes_of_each_tensor(parquet):
    query = f"""SELECT tensor, bits, sum(octet_length(codes)) AS bytes FROM read_parquet('{parquet.as_posix()}')
                GROUP BY 1, 2"""
    by_duckdb = sorted(duckdb.sql(query).fetchall())
    by_polars = polars.read_parquet(parquet).group_by("tensor", "bits").agg(polars.col("codes").bin.size().sum())
    assert by_duckdb == sorted((t, b, int(n)) for t, b, n in by_polars.rows())
    stored = {t["name"]: t for t in aq_json("inspect", parquet)["tensors"]}
    assert {t for t, _, _ in by_duckdb} == set(stored)
    for tensor, bits, size in by_duckdb:
        assert bits == stored[tensor]["bits"]
        if "codec" in stored[tensor]:
            assert size * 8 == bits * np.prod(stored[tensor]["shape"])


def test_key_values(parquet):
    pairs = {k.decode(): v.decode() for k, v in pq.read_metadata(parquet).metadata.items()}
    assert {"aq.format_version", "aq.model", "aq.plan", "aq.tool"} <= pairs.keys()
    assert pairs["aq.format_version"] == "1" and pairs["aq.model"] == "dit"
    assert len(json.loads(pairs["aq.plan"])["tensors"]) == len(load_safetensors(DIGITS / "model.safetensors"))


def test_arrow_file_holds_the_same_rows_aligned(parquet, tmp_path):
    aq("quantize", DIGITS, "-o", tmp_path / "digits.arrow", "--bits", 4, "--method", "ls", "--quiet")
    table = open_arrow(tmp_path / "digits.arrow")
    assert table.to_pylist() == pq.read_table(parquet).to_pylist()
    for chunk in table["codes"].chunks:
        assert all(buffer.address % 64 == 0 for buffer in chunk.buffers() if buffer is not None)
    assert table.schema.metadata[b"aq.format_version"] == b"1"
    assert polars.read_ipc(tmp_path / "digits.arrow").height == table.num_rows


CASES = [(method, bits) for method in ("minmax", "ls") for bits in (2, 3, 4, 5, 6, 8)]
CASES += [("codebook", 2), ("codebook", 3), ("codebook", 4), ("nf4", 4), ("binary", 1), ("ternary", 2)]
CASES += [(method, bits) for method in ("trellis", "trellis6") for bits in (2, 3, 4, 6)]


@pytest.mark.parametrize("method,bits", CASES)
def test_the_documented_decoder_equals_dequantize(bits, method, tmp_path):
    model = write_model(tmp_path / "odd.safetensors", {"a.weight": (70, 333), "b.weight": (40, 20, 3, 3), "c": (9,)})
    for source, group in ((DIGITS, 64), (model, 40), (model, 128), (model, 0)):
        out, back = tmp_path / "q.parquet", tmp_path / "q.safetensors"
        settings = ["--bits", bits, "--method", method, "--group-size", group]
        aq("quantize", source, "-o", out, *settings, "--force", "--quiet")
        aq("dequantize", out, "-o", back, "--dtype", "f32", "--force")
        expected = load_safetensors(back)
        decoded = native_format.read(pq.read_table(out))
        assert decoded.keys() == expected.keys()
        for name, array in expected.items():
            assert np.array_equal(decoded[name], array), name


@pytest.mark.parametrize("method,bits,codec", [("ls", 3, "affine"), ("codebook", 2, "codebook"), ("ternary", 2, "sign")])
def test_the_documented_decoder_undoes_a_rotation_and_adds_a_low_rank_part(method, bits, codec, tmp_path):
    model = write_model(tmp_path / "model.safetensors", {"a.weight": (1500, 1152), "b.weight": (40, 24, 3, 3)})
    out, back = tmp_path / "q.parquet", tmp_path / "q.safetensors"
    aq("quantize", model, "-o", out, "--bits", bits, "--method", method, "--rotation", "on", "--seed", 3, "--low-rank", 4,
       "--quiet")
    aq("dequantize", out, "-o", back, "--dtype", "f32")
    table = pq.read_table(out)
    assert set(table["codec"].to_pylist()) == {f"{codec}+transform"}
    decoded = native_format.read(table)
    for name, array in load_safetensors(back).items():
        assert np.array_equal(decoded[name], array), name


def test_the_example_of_the_document_reads_a_file(tmp_path):
    text = (DIGITS.parents[1] / "format.md").read_text()
    example = {}
    exec(text[text.index("```python") + len("```python"):text.rindex("```")], example)
    three = ["--bits", 3, "--method"]
    signs = [["--method", "binary"], ["--method", "ternary", "--group-size", 40]]
    for options in ([*three, "ls"], [*three, "minmax"], [*three, "codebook", "--rotation", "on"], *signs):
        out, back = tmp_path / "q.parquet", tmp_path / "q.safetensors"
        aq("quantize", DIGITS, "-o", out, *options, "--force", "--quiet")
        aq("dequantize", out, "-o", back, "--dtype", "f32", "--force")
        expected = load_safetensors(back)
        for name, array in example["tensors"](out).items():
            assert np.array_equal(array, expected[name]), name
