#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
A prompt's KV survives the death of the process that computed it.

A small Llama-like model with random weights runs on the CPU. One process computes a prompt in chunks of 256 tokens,
stores the KV of every chunk, and kills itself with SIGKILL. A second one opens the store, loads the prefix, computes
only the last chunk, and goes on for some tokens: all its logits are equal, bit for bit, to those of a process that
computed everything. With other weights, or another dtype, the same prompt finds nothing.

    pip install torch . && python examples/llama_restart.py
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import torch
from torch.nn import functional

import kvkeep

CHUNK, VOCABULARY, WIDTH, LAYERS, HEADS, KV_HEADS = 256, 2048, 256, 6, 4, 2
TOKENS_AFTER = 16
HEAD = WIDTH // HEADS


class Model:
    """Rotary attention with grouped heads, SwiGLU, RMS norms. state: per layer (K, V) of all tokens so far."""

    def __init__(self, seed, dtype):
        random = torch.Generator().manual_seed(seed)

        def weights(*shape):
            return (torch.randn(*shape, generator=random) / shape[-1] ** 0.5).to(dtype)

        self.dtype = dtype
        self.embedding = weights(VOCABULARY, WIDTH)
        self.layers = [{'q': weights(WIDTH, WIDTH), 'k': weights(KV_HEADS * HEAD, WIDTH),
                        'v': weights(KV_HEADS * HEAD, WIDTH), 'o': weights(WIDTH, WIDTH),
                        'gate': weights(4 * WIDTH, WIDTH), 'up': weights(4 * WIDTH, WIDTH),
                        'down': weights(WIDTH, 4 * WIDTH)} for _ in range(LAYERS)]

    def digest(self):
        """What tells these weights from others."""
        digest = hashlib.sha256()
        for tensor in [self.embedding, *(layer[name] for layer in self.layers for name in sorted(layer))]:
            digest.update(tensor.view(torch.uint8).numpy())
        return digest.hexdigest()

    def forward(self, tokens, past):
        """The logits of the last token, and the KV of these tokens: (layers, 2, heads, tokens, width)."""
        before = past[0].shape[2] if past else 0
        hidden = self.embedding[tokens]
        angle = torch.arange(before, before + len(tokens))[:, None] / 10000 ** (torch.arange(0, HEAD, 2) / HEAD)
        turn = torch.cat([angle, angle], -1)
        cosine, sine = turn.cos().to(self.dtype), turn.sin().to(self.dtype)
        mask = torch.ones(len(tokens), before + len(tokens), dtype=torch.bool).tril(before)
        made = []

        def heads(value, count):
            return value.view(len(tokens), count, HEAD).transpose(0, 1)

        def rotate(value):
            first, second = value.chunk(2, -1)
            return value * cosine + torch.cat([-second, first], -1) * sine

        for index, layer in enumerate(self.layers):
            normed = functional.rms_norm(hidden, (WIDTH,))
            query = rotate(heads(normed @ layer['q'].T, HEADS))
            key, value = rotate(heads(normed @ layer['k'].T, KV_HEADS)), heads(normed @ layer['v'].T, KV_HEADS)
            made.append(torch.stack([key, value]))
            if past:
                key, value = torch.cat([past[index][0], key], 1), torch.cat([past[index][1], value], 1)
            key, value = (part.repeat_interleave(HEADS // KV_HEADS, 0) for part in (key, value))
            attended = functional.scaled_dot_product_attention(query[None], key[None], value[None], mask)[0]
            hidden = hidden + attended.transpose(0, 1).reshape(len(tokens), WIDTH) @ layer['o'].T
            normed = functional.rms_norm(hidden, (WIDTH,))
            hidden = hidden + (functional.silu(normed @ layer['gate'].T) * (normed @ layer['up'].T)) @ layer['down'].T
        return functional.rms_norm(hidden[-1:], (WIDTH,)) @ self.embedding.T, torch.stack(made)


def chunk_keys(chunks):
    """A chunk's key says all tokens up to its end."""
    digest, keys = b'', []
    for chunk in chunks:
        digest = hashlib.sha256(digest + json.dumps(chunk.tolist()).encode()).digest()
        keys.append(f'tiny-llama@00000000@0@{digest.hex()}')
    return keys


def open_store(folder, model):
    return kvkeep.open(folder, namespace={'weights': model.digest(), 'dtype': str(model.dtype), 'chunk_tokens': CHUNK,
                                          'layout': [LAYERS, 2, KV_HEADS, CHUNK, HEAD]})


def grow(past, chunk):
    return list(torch.cat([torch.stack(past), chunk], 3)) if past else list(chunk)


def run(role, folder, seed, dtype, count):
    """One process: 'plain' computes all, 'prefill' computes, stores and dies, 'restart' loads what is there."""
    torch.manual_seed(0)
    torch.set_num_threads(2)
    model = Model(seed, getattr(torch, dtype))
    chunks = torch.randint(VOCABULARY, (count,), generator=torch.Generator().manual_seed(1)).split(CHUNK)
    keys = chunk_keys(chunks)
    began = time.perf_counter()
    past, loaded = [], 0
    store = open_store(folder, model) if role != 'plain' else None
    if role == 'restart':
        rooms = [torch.empty((LAYERS, 2, KV_HEADS, CHUNK, HEAD), dtype=model.dtype) for _ in chunks[:-1]]
        there = store.get_into_many(keys[:-1], rooms)
        loaded = there.index(None) if None in there else len(there)
        if loaded:
            past = list(torch.cat(rooms[:loaded], 3))
    for index in range(loaded, len(chunks)):
        logits, made = model.forward(chunks[index], past)
        past = grow(past, made)
        if role == 'prefill' and len(chunks[index]) == CHUNK:
            store.put(keys[index], made.contiguous(), parent=keys[index - 1] if index else None, depth=index)
    seconds = time.perf_counter() - began
    said = [logits]
    for _ in range(TOKENS_AFTER):
        logits, made = model.forward(said[-1].argmax(-1), past)
        past = grow(past, made)
        said.append(logits)
    digest = hashlib.sha256(torch.cat(said).contiguous().view(torch.uint8).numpy()).hexdigest()
    print(json.dumps({'loaded': loaded, 'chunks': len(chunks), 'seconds': seconds, 'logits': digest}), flush=True)
    if role == 'prefill':
        os.kill(os.getpid(), signal.SIGKILL)


def process(role, folder, seed=1, dtype='float32', count=2148):
    done = subprocess.run([sys.executable, __file__, '--role', role, '--folder', folder, '--seed', str(seed),
                           '--dtype', dtype, '--tokens', str(count)], stdout=subprocess.PIPE)
    want = -signal.SIGKILL if role == 'prefill' else 0
    if done.returncode != want:
        sys.exit(f'{role}: ended with {done.returncode}')
    return json.loads(done.stdout)


def prove(folder, count):
    """Runs everything, tells it, and returns what was seen."""
    plain = process('plain', folder, count=count)
    killed = process('prefill', folder, count=count)
    restart = process('restart', folder, count=count)
    other_weights = process('restart', folder, seed=2, count=count)
    other_dtype = process('restart', folder, dtype='bfloat16', count=count)
    print(f'prompt             {count} tokens in {plain["chunks"]} chunks of {CHUNK}')
    print(f'without a cache    {plain["seconds"]:.3f} s to the first token')
    print(f'computed, stored   {killed["seconds"]:.3f} s, then SIGKILL')
    print(f'after a restart    {restart["seconds"]:.3f} s to the first token, {restart["loaded"]} of {restart["chunks"]} chunks loaded')
    print(f'logits             of {1 + TOKENS_AFTER} tokens {"equal bit for bit" if restart["logits"] == plain["logits"] else "DIFFERENT"}')
    print(f'other weights      {other_weights["loaded"]} chunks loaded')
    print(f'other dtype        {other_dtype["loaded"]} chunks loaded')
    return plain, killed, restart, other_weights, other_dtype


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--role', choices=['plain', 'prefill', 'restart'], help=argparse.SUPPRESS)
    parser.add_argument('--folder', help='where the store is kept; without, in a temporary folder')
    parser.add_argument('--tokens', type=int, default=2148)
    parser.add_argument('--seed', type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument('--dtype', default='float32', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        run(options.role, options.folder, options.seed, options.dtype, options.tokens)
        return 0
    with tempfile.TemporaryDirectory(prefix='kvkeep-llama-') as temporary:
        plain, killed, restart, weights, dtype = prove(options.folder or os.path.join(temporary, 'store'), options.tokens)
    right = plain['logits'] == killed['logits'] == restart['logits'] and restart['loaded'] == restart['chunks'] - 1
    return 0 if right and weights['loaded'] == 0 and dtype['loaded'] == 0 else 1


if __name__ == '__main__':
    sys.exit(main())
