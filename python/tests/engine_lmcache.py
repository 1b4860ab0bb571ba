# SPDX-License-Identifier: Apache-2.0
"""LMCache's own machinery over kvkeep, without a GPU: its benchmark, its storage manager, its eviction controller."""

import argparse
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

torch = pytest.importorskip('torch')
api = pytest.importorskip('lmcache.v1.distributed.api')


def spec(kind, folder, **params):
    return {'type': kind, 'module_path': 'kvkeep.lmcache',
            'class_name': 'Connector' if kind == 'native_plugin' else 'Adapter',
            'adapter_params': {'file_path': folder + '/s', 'max_capacity_gb': 4, **params},
            **({'max_capacity_gb': 4} if kind == 'native_plugin' else {})}


@pytest.mark.parametrize('size_kb, keys, in_flight', [(64, 32, 4), (1024, 16, 4), (8192, 8, 2), (32768, 4, 1)])
@pytest.mark.parametrize('kind', ['native_plugin', 'plugin'])
def test_bench_l2_verifies(folder, kind, size_kb, keys, in_flight):
    done = subprocess.run([os.path.join(os.path.dirname(sys.executable), 'lmcache'), 'bench', 'l2', '--l2-adapter',
                           json.dumps(spec(kind, folder)), '--num-keys', str(keys), '--in-flight', str(in_flight),
                           '--data-size-kb', str(size_kb), '--rounds', '2', '--lookup-max-hit-rate', '0.5',
                           '--no-skip-verify'],
                          capture_output=True, text=True, timeout=300)
    said = done.stdout + done.stderr
    print(said[-3000:])
    assert done.returncode == 0 and 'Traceback' not in said, said[-3000:]
    assert f'[Verify] All {keys * in_flight} keys data verified OK.' in said
    for operation in ('Store', 'Load'):
        facts = dict(re.findall(r'^([A-Z].*?):\s+(\S+)$', said.split(f'- {operation} -', 1)[1], re.MULTILINE)[::-1])
        assert facts['Rounds timed out'] == '0'
        assert facts['Total success'] == facts['Total keys'] == str(2 * keys * in_flight)


def test_the_comparison_with_its_own_storage(folder):
    """A moment of it: who cannot run on this machine is named, and every load of everybody else is verified."""
    script = os.path.join(os.path.dirname(__file__), '..', '..', 'bench', 'compare_lmcache.py')
    done = subprocess.run([sys.executable, script, '--smoke', '--venv', sys.prefix, '--dir', folder, '--json',
                           folder + '/lines'], capture_output=True, text=True, timeout=600)
    print(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    with open(folder + '/lines', encoding='utf-8') as file:
        records = [json.loads(line) for line in file]
    assert {'connector', 'adapter', 'fs', 'fs_native'} <= {record['peer'] for record in records if 'run' in record}


def manager(adapter):
    from lmcache.v1.distributed import config
    from lmcache.v1.distributed.l2_adapters.config import add_l2_adapters_args, parse_args_to_l2_adapters_config
    from lmcache.v1.distributed.storage_manager import StorageManager

    parser = argparse.ArgumentParser()
    add_l2_adapters_args(parser)
    adapters = parse_args_to_l2_adapters_config(parser.parse_args(['--l2-adapter', json.dumps(adapter)]))
    return StorageManager(config.StorageManagerConfig(
        l1_manager_config=config.L1ManagerConfig(memory_config=config.L1MemoryManagerConfig(
            size_in_bytes=256 << 20, use_lazy=False, shm_name='')),
        eviction_config=config.EvictionConfig(eviction_policy='LRU'), l2_adapter_config=adapters))


def names(count, start=0):
    return [api.ObjectKey(index.to_bytes(8, 'big'), 'org/model', 0x01000100) for index in range(start, start + count)]


LAYOUT = api.MemoryLayoutDesc([torch.Size([2, 4, 256, 128])], [torch.bfloat16])
OBJECT_BYTES = 2 * 4 * 256 * 128 * 2


def write(storage, keys):
    """Computes and stores, as an engine's worker does."""
    reserved = storage.reserve_write(keys, LAYOUT)
    assert len(reserved) == len(keys)
    for key in keys:
        reserved[key].tensor.fill_(float(int.from_bytes(key.chunk_hash, 'big') % 97 + 1))
    storage.finish_write(keys)


def prefetch(storage, keys):
    group = api.GroupedObjectKeys(keys=keys, object_group_id=0, layout_desc=LAYOUT)
    handle = storage.submit_prefetch_task(api.PrefetchTaskSpec(key_groups=[group]))
    assert storage.wait_prefetch_status(handle, 30)
    return storage.query_prefetch_status(handle)


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.05)
    pytest.fail('it did not come')


def used(storage):
    return [adapter for _, adapter in storage.l2_adapters()][0].get_usage().total_bytes_used


@pytest.mark.parametrize('kind', ['native_plugin', 'plugin'])
def test_store_and_prefetch_over_a_restart(folder, kind):
    keys = names(16)
    storage = manager(spec(kind, folder))
    write(storage, keys)
    until(lambda: used(storage) >= 16 * OBJECT_BYTES)
    storage.close()
    storage = manager(spec(kind, folder))
    if kind == 'plugin':
        until(lambda: used(storage) >= 16 * OBJECT_BYTES)
    result = prefetch(storage, keys + names(4, 100))
    assert result.l2_hit_count == 16 and result.l1_hit_count == 0
    with storage.read_prefetched_results(keys) as objects:
        for key, obj in zip(keys, objects):
            assert (obj.tensor == float(int.from_bytes(key.chunk_hash, 'big') % 97 + 1)).all()
    storage.close()


def policy(storage):
    """LMCache's own order of eviction."""
    (state,) = storage._l2_eviction_controller._adapter_states
    return state.eviction_policy


def test_a_restart_recovers_usage_and_order(folder):
    eviction = {'eviction_policy': 'LRU', 'trigger_watermark': 0.9, 'eviction_ratio': 0.25}
    keys = names(12)
    storage = manager({**spec('plugin', folder), 'eviction': eviction})
    write(storage, keys)
    until(lambda: used(storage) >= 12 * OBJECT_BYTES)
    before = used(storage)
    adapter = [adapter for _, adapter in storage.l2_adapters()][0]
    files = {entry['key']: f'{folder}/s/{entry["name"]}' for entry in adapter._core.list(None, None, None, 0, None, 100)[0]}
    storage.close()
    order = keys[5:] + keys[:5]
    for age, key in enumerate(reversed(order)):
        used_ns = time.time_ns() + 10**9 * (100 - age)
        os.utime(files[text_of(key).encode()], ns=(used_ns, time.time_ns()))
    storage = manager({**spec('plugin', folder), 'eviction': eviction})
    adapter = [adapter for _, adapter in storage.l2_adapters()][0]
    until(lambda: adapter.report_status()['recovered'])
    assert 12 * OBJECT_BYTES <= used(storage) <= before
    (oldest,) = policy(storage).get_eviction_actions(0.25)
    assert oldest.keys == order[:3]
    (every,) = policy(storage).get_eviction_actions(1.0)
    assert every.keys == order
    storage.close()


def test_eviction_by_the_host_without_locks(folder):
    """With native_plugin LMCache counts and evicts by itself; what it deletes is gone here, and counted so there."""
    eviction = {'eviction_policy': 'LRU', 'trigger_watermark': 0.5, 'eviction_ratio': 0.5}
    given = spec('native_plugin', folder)
    storage = manager({**given, 'max_capacity_gb': 0.03, 'eviction': eviction})
    write(storage, names(40))
    adapter = [adapter for _, adapter in storage.l2_adapters()][0]
    until(lambda: adapter._client._core.stats()['removed'] > 0)
    until(lambda: adapter.get_usage().usage_fraction < 0.5)
    until(lambda: used(storage) == adapter._client._core.usage()['objects'] * OBJECT_BYTES)
    storage.close()


def test_eviction_by_the_host_keeps_what_is_locked(folder):
    eviction = {'eviction_policy': 'LRU', 'trigger_watermark': 0.5, 'eviction_ratio': 0.5}
    storage = manager({**spec('plugin', folder, max_capacity_gb=0.03), 'eviction': eviction})
    adapter = [adapter for _, adapter in storage.l2_adapters()][0]
    keys = names(8)
    write(storage, keys)
    held = keys[:2]
    until(lambda: all(adapter._core.lookup([text], 0, False, 0, True)[0][0] == 0 for text in map(text_of, held)))
    adapter.submit_lookup_and_lock_task(held, {})
    write(storage, names(24, 8))
    until(lambda: adapter._core.stats()['removed'] > 0)
    time.sleep(3)
    assert all(result[0] == 0 for result in adapter._core.lookup([text_of(key) for key in held], 0, False, 0, True))
    adapter.submit_unlock(held)
    storage.close()


def free_port():
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        return str(found.getsockname()[1])


def test_the_server_of_the_readme(folder):
    """A real server with the command that users are given, with less memory and other ports."""
    with open(os.path.join(os.path.dirname(__file__), '..', '..', 'README.md'), encoding='utf-8') as file:
        command = re.search(r"^    lmcache (server .*?\}\}')$", file.read(), re.DOTALL | re.MULTILINE).group(1)
    words = [word.replace('/var/lib/kv', folder + '/s') for word in shlex.split(command)]
    words[words.index('--l1-size-gb') + 1] = '1'
    port = free_port()
    with open(folder + '/log', 'w+') as log:
        server = subprocess.Popen([os.path.join(os.path.dirname(sys.executable), 'lmcache'), *words, '--port', free_port(),
                                   '--http-port', port], stdout=log, stderr=subprocess.STDOUT)
        try:
            status = ''
            end = time.monotonic() + 120
            while not status and server.poll() is None and time.monotonic() < end:
                time.sleep(0.5)
                try:
                    with urllib.request.urlopen(f'http://127.0.0.1:{port}/status', timeout=5) as answer:
                        status = answer.read().decode()
                except OSError:
                    pass
        finally:
            server.terminate()
            server.wait(60)
        log.seek(0)
        assert status, log.read()[-3000:]
    print(status)
    (adapter,) = [part for part in parts(json.loads(status)) if part.get('type') == 'kvkeep']
    assert json.loads(status)['is_healthy'] is True and adapter['is_healthy'] is True
    assert adapter['store']['settings']['path'] == folder + '/s'


def parts(value):
    """Every object in a JSON value."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from parts(part)


def text_of(key):
    from kvkeep._lmcache_api import key_text

    return key_text(key)
