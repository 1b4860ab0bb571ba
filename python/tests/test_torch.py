# SPDX-License-Identifier: Apache-2.0
"""With torch itself: tensors without a copy, and real attention over a restart."""

import os
import subprocess
import sys

import pytest

try:
    import torch
except ImportError:
    pytest.skip('torch is not installed here; make check-engines has it', allow_module_level=True)

EXAMPLE = os.path.join(os.path.dirname(__file__), '..', '..', 'examples', 'llama_restart.py')


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int8])
def test_tensors_of_any_dtype(store, dtype):
    tensor = torch.randn(16, 64).to(dtype)
    back = torch.zeros(16, 64).to(dtype)
    assert store.put('k', tensor) is True
    assert store.get_into('k', back) == tensor.numel() * tensor.element_size()
    assert torch.equal(tensor.view(torch.uint8), back.view(torch.uint8))
    assert store.get('k') == tensor.view(torch.uint8).numpy().tobytes()
    with pytest.raises(ValueError, match='contiguous'):
        store.put('other', tensor.T)


class Dlpack:
    """What speaks DLPack and nothing else."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self, **how):
        return self.tensor.__dlpack__(**how)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


def test_dlpack(store):
    tensor, back = torch.randn(100), torch.zeros(100)
    store.put('k', Dlpack(tensor))
    assert store.get_into('k', Dlpack(back)) == 400 and torch.equal(tensor, back)


def test_real_attention_over_a_restart(folder):
    """Logits equal bit for bit after SIGKILL; other weights and another dtype are misses."""
    done = subprocess.run([sys.executable, EXAMPLE, '--folder', folder + '/s', '--tokens', '1124'], capture_output=True,
                          text=True, timeout=600)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'equal bit for bit' in done.stdout and '4 of 5 chunks loaded' in done.stdout
