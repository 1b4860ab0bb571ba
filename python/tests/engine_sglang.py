# SPDX-License-Identifier: Apache-2.0
"""SGLang's own loader and abstract class over HiCacheKvkeep; the tensors are on the CPU."""

import inspect

import pytest

torch = pytest.importorskip('torch')
storage = pytest.importorskip('sglang.srt.mem_cache.hicache_storage')


class Pool:
    """A host pool over a torch tensor, laid out page first."""

    page_size, layout, dtype, layer_num, head_num, head_dim = 16, 'page_first', torch.bfloat16, 2, 4, 64

    def __init__(self, pages):
        self.kv_buffer = torch.randn((2, pages, self.page_size, self.layer_num, self.head_num, self.head_dim)).to(self.dtype)

    def get_page_buffer_meta(self, indices):
        pages = [int(index) // self.page_size for index in indices[::self.page_size]]
        addresses = [self.kv_buffer[part, page].data_ptr() for page in pages for part in (0, 1)]
        return addresses, [self.kv_buffer[0, 0].numel() * 2] * len(addresses)


def test_the_loader_makes_one_and_every_method_answers(folder):
    from sglang.srt.mem_cache.storage.backend_factory import StorageBackendFactory

    extra = {'backend_name': 'kvkeep', 'module_path': 'kvkeep.sglang', 'class_name': 'HiCacheKvkeep',
             'interface_v1': 1, 'file_path': folder + '/s'}
    config = storage.HiCacheStorageConfig(
        tp_rank=0, tp_size=1, pp_rank=0, pp_size=1, attn_cp_rank=0, attn_cp_size=1, is_mla_model=False,
        enable_storage_metrics=False, is_page_first_layout=True, model_name='org/model', extra_config=extra)
    pool = Pool(16)
    made = StorageBackendFactory.create_backend('dynamic', config, pool)
    assert isinstance(made, storage.HiCacheStorage) and not inspect.isabstract(type(made))
    made.register_mem_pool_host(pool)
    made.register_mem_host_pool_v2(pool, storage.PoolName.KV)
    made.on_host_pools_registered()
    keys = [f'{index:064x}' for index in range(4)]
    assert made.batch_set_v1(keys, torch.arange(64)) == [True] * 4
    assert made.batch_exists(keys + ['ff' * 32], storage.HiCacheStorageExtraInfo()) == 4
    assert made.batch_get_v1(keys, torch.arange(64, 128)) == [True] * 4
    assert torch.equal(pool.kv_buffer[:, :4], pool.kv_buffer[:, 4:8])
    transfer = storage.PoolTransfer(name=storage.PoolName.KV, host_indices=torch.arange(128, 192), keys=keys)
    assert made.batch_get_v2([transfer]) == {storage.PoolName.KV: [True] * 4}
    assert made.batch_set_v2([transfer]) == {storage.PoolName.KV: [True] * 4}
    result = made.batch_exists_v2(keys, [])
    assert isinstance(result, storage.PoolTransferResult) and result.kv_hit_pages == 4
    page = torch.randn(100)
    back = torch.zeros(100)
    assert made.set('aa', page) and made.exists('aa') and made.get('aa', back) is back and torch.equal(page, back)
    assert made.batch_set(['bb'], [page]) is True and made.batch_get(['bb', 'cc'], [back, back])[1] is None
    assert made.get_stats() is None
    made.clear()
    assert made.batch_exists(keys) == 0
    made.close()
