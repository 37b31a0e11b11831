"""Stand-ins for CUDA libraries: each symbol in its library, and no silent call."""

import subprocess

import pytest

from rehearsal.image import cuda_stubs

UNDEFINED = [
    "cublasCreate_v2@libcublas.so.13",
    "cublasLtCreate@libcublasLt.so.13",
    "cusparseLtInit",
    "ncclAllReduce",
    "nvshmem_barrier@NVSHMEM",
    "cudaMalloc@libcudart.so.13",
    "memcpy@GLIBC_2.14",
]


def exported(libraries):
    return {lib.soname: (dict(lib.versioned), lib.plain) for lib in libraries}


def test_each_symbol_goes_to_the_library_that_it_is_asked_of():
    by_name = exported(cuda_stubs.libraries(UNDEFINED))
    assert by_name["libcublas.so.13"] == ({"libcublas.so.13": ("cublasCreate_v2",)}, ())
    assert by_name["libcublasLt.so.13"] == ({"libcublasLt.so.13": ("cublasLtCreate",)}, ())
    assert by_name["libcusparseLt.so.0"] == ({}, ("cusparseLtInit",))
    assert by_name["libcusparse.so.12"] == ({}, ())
    assert by_name["libnccl.so.2"] == ({}, ("ncclAllReduce",))
    assert by_name["libnvshmem_host.so.3"] == ({"NVSHMEM": ("nvshmem_barrier",)}, ())


def test_libraries_that_are_really_installed_get_no_stand_in():
    symbols = {
        s for versioned, plain in exported(cuda_stubs.libraries(UNDEFINED)).values() for s in plain
    }
    assert "cudaMalloc" not in symbols
    assert "libcudart.so.13" not in cuda_stubs.STANDS_IN


def test_a_program_that_calls_a_stand_in_ends_with_a_sentence(tmp_path):
    library = cuda_stubs.Library("libnccl.so.2", {"NODE_1": ("ncclSend",)}, ())
    cuda_stubs._compile(library, tmp_path)
    source = tmp_path / "program.c"
    source.write_text("void ncclSend(void); int main(void) { ncclSend(); return 0; }")
    program = tmp_path / "program"
    link = [f"-Wl,-rpath,{tmp_path}", str(tmp_path / library.soname)]
    subprocess.run(["gcc", "-o", program, source, *link], check=True)
    assert "ncclSend@NODE_1" in {
        s.split()[0] for s in cuda_stubs._symbols([program], "--undefined-only")
    }
    ended = subprocess.run([program], check=False, capture_output=True, text=True)
    assert ended.returncode < 0
    assert "ncclSend was called, but this vLLM runtime is for CPU" in ended.stderr


def test_missing_tools_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cuda_stubs.missing_tools() == ["gcc", "nm"]


@pytest.mark.parametrize("soname", sorted(cuda_stubs.STANDS_IN))
def test_sources_refuse_every_symbol(soname):
    library = cuda_stubs.Library(soname, {}, ("first", "second"))
    assert cuda_stubs.source(library).count("{ refuse(") == 2
