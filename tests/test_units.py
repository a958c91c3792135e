from edgeslim.units import FLOP_PER_MAC, VALUE_BYTES, gflop, mib


def test_memory_is_binary_and_flop_decimal() -> None:
    assert mib(2**20) == 1
    assert gflop(1e9) == 1
    assert FLOP_PER_MAC == 2
    assert VALUE_BYTES["fp32"] == 4
