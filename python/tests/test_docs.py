# SPDX-License-Identifier: Apache-2.0
"""What README.md and docs/engines.md give to copy: the JSON in their commands makes what it says."""

import json
import os
import re
from types import SimpleNamespace

import numpy
import pytest

ROOT = os.path.join(os.path.dirname(__file__), '..', '..')


def given(option):
    """Each JSON object that stands behind an option, in quotes."""
    found = []
    for name in ('README.md', 'docs/engines.md'):
        with open(os.path.join(ROOT, name), encoding='utf-8') as file:
            found += re.findall(re.escape(option) + r" '(\{.*?\})'", file.read(), re.DOTALL)
    return found


def here(text, folder):
    """For this machine: another directory, and not as much memory."""
    assert '/var/lib/kv' in text
    return json.loads(text.replace('/var/lib/kv', folder + '/s'))


def made(spec):
    import importlib

    return getattr(importlib.import_module(spec['module_path']), spec.get('class_name') or spec['type'])


@pytest.mark.parametrize('text', given('--l2-adapter'))
def test_lmcache(folder, text):
    spec = here(text, folder)
    plugged = made(spec)
    host = plugged(spec['adapter_params']) if spec['type'] == 'plugin' else plugged(**spec['adapter_params'])
    assert host._core.usage()['cap_bytes'] == 50 << 30
    assert spec['type'] == 'plugin' or spec['max_capacity_gb'] == 50
    host.close()


TIERS = [text for text in given('--kv-transfer-config') if 'kvkeep' in text]


@pytest.mark.parametrize('text', TIERS)
def test_vllm(folder, text):
    from test_vllm import spec

    (tier,) = here(text, folder)['kv_connector_extra_config']['secondary_tiers']
    made_tier = made(tier)(offloading_spec=spec(), primary_kv_view=memoryview(numpy.zeros((4, 4096), dtype=numpy.int8)),
                           tier_type=tier.pop('type'), **tier)
    assert made_tier._core.usage()['cap_bytes'] == 50 << 30
    made_tier.shutdown()


@pytest.mark.parametrize('text', given('--hicache-storage-backend-extra-config'))
def test_sglang(folder, text):
    from test_sglang import Pool

    extra = here(text, folder)
    storage = made(extra)(SimpleNamespace(tp_rank=0, tp_size=1, is_mla_model=False, model_name='m', extra_config=extra))
    storage.register_mem_pool_host(Pool(4))
    assert storage._core.usage()['cap_bytes'] == 50 << 30
    storage.close()


def test_all_of_them_were_found():
    assert len(given('--l2-adapter')) == 3 and len(TIERS) == 2
    assert len(given('--hicache-storage-backend-extra-config')) == 2


def test_the_specification_of_lmcaches_own_adapter(folder):
    """The one that LMCache's users have already, word for word."""
    from kvkeep.lmcache import Connector

    with open(os.path.join(ROOT, 'docs', 'engines.md'), encoding='utf-8') as file:
        (text,) = re.findall(r'"adapter_params": (\{"type": "nixl_store_dynamic".*?\})\n\n', file.read(), re.DOTALL)
    connector = Connector(**json.loads(text.replace('/data/l2', folder + '/s')))
    assert connector.usage()['cap_bytes'] == 50 << 30
    connector.close()


POOL = {'type': 'nixl_store', 'backend': 'POSIX', 'backend_params': {'file_path': '/data/l2', 'use_direct_io': 'false'},
        'pool_size': 64}


def test_the_specification_of_lmcaches_other_adapter(folder):
    """nixl_store, a pool of slots, word for word: by the package itself, and in both ways into LMCache, over restarts."""
    import kvkeep
    from kvkeep.lmcache import Adapter, Connector
    from test_lmcache_connector import Host

    spec = json.loads(json.dumps(POOL).replace('/data/l2', folder + '/s'))
    key, data = 'org/model@01000100@0@00ff', bytes(range(256)) * 5000
    host = Host(Connector(**spec))
    assert host.do('set', [key], [memoryview(data)]) == (True, '', None)
    host.close()
    assert not [name for name in os.listdir(folder + '/s') if re.fullmatch('[0-9a-f]{2}', name)]
    host, room = Host(Connector(**spec)), bytearray(len(data))
    assert host.do('get', [key], [memoryview(room)]) == (True, '', [True]) and room == data
    host.close()
    with kvkeep.open(dict(spec, backend_params=dict(spec['backend_params'], file_path=folder + '/t'))) as store:
        assert store.put(key, data) is True and store.get(key) == data
        assert store.usage().cap_bytes == 64 << 20
    adapter = Adapter(spec)
    assert adapter.get_usage().total_capacity_bytes == 64 << 20
    assert adapter.get_usage().total_bytes_used >= len(data)
    adapter.close()


@pytest.mark.parametrize('change, said', [
    ({'persist_enabled': 'false'}, 'persist_enabled'), ({'pool_size': 0}, 'pool_size'), ({'backend_params': {}}, 'file_path'),
    ({'pool_sice': 64}, 'pool_sice'), ({'backend': 'TAPE'}, 'backend'),
])
def test_what_it_must_not_say_is_named(folder, change, said):
    from kvkeep.lmcache import Connector

    spec = json.loads(json.dumps(POOL).replace('/data/l2', folder + '/s'))
    with pytest.raises(ValueError, match=said):
        Connector(**{**spec, **change})
    assert not os.path.exists(folder + '/s')
