"""The warning about bfloat16 on CPUs that only emulate it."""

import pytest

from diffit.numerics import precision


@pytest.mark.parametrize(
    ("name", "device", "flags", "warns"),
    [
        ("bfloat16", "cpu", "flags : avx2 avx512f", True),
        ("bfloat16", "cpu", "flags : avx2 avx512f avx512_bf16", False),
        ("bfloat16", "cpu", "Features : asimd bf16", False),
        ("bfloat16", "cuda", "flags : avx2", False),
        ("float32", "cpu", "flags : avx2", False),
        ("bfloat16", "cpu", None, False),  # not Linux: unknown
    ],
)
def test_only_bfloat16_on_a_cpu_without_its_instructions_is_warned_about(
    name, device, flags, warns, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(precision, "CPU_INFO", tmp_path / "cpuinfo")
    if flags:
        (tmp_path / "cpuinfo").write_text(flags)
    precision.warn_if_emulated(name, device)
    assert [message.startswith("warning: this CPU has no instructions") for message in caplog.messages] == [
        True
    ] * warns
