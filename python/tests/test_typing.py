# SPDX-License-Identifier: Apache-2.0
"""The package is typed: what its stub says of the extension is what the extension has."""

import ast
import inspect
import os
import subprocess
import sys

import kvkeep
from kvkeep import _kvkeep

FOLDER = os.path.dirname(kvkeep.__file__)


def stub():
    with open(os.path.join(FOLDER, '_kvkeep.pyi'), encoding='utf-8') as file:
        return ast.parse(file.read()).body


def declared(nodes):
    """{name: how it is called, or None} of what a stub declares, its own aliases of types left out."""
    found = {}
    for node in nodes:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = None if node.decorator_list else called(node.args)
        elif isinstance(node, ast.AnnAssign):
            found[node.target.id] = None
        elif isinstance(node, ast.ClassDef):
            found[node.name] = None
    return found


def called(arguments):
    """[(name, default)] of parameters by position; 'none' stands for no default."""
    assert not arguments.args and not arguments.kwonlyargs or [part.arg for part in arguments.args] == ['self']
    names = [part.arg for part in arguments.posonlyargs if part.arg != 'self']
    defaults = ['none'] * (len(names) - len(arguments.defaults)) + [part.value for part in arguments.defaults]
    return list(zip(names, defaults))


def has(function):
    parameters = inspect.signature(function).parameters.values()
    return [(part.name, 'none' if part.default is part.empty else part.default) for part in parameters
            if part.name != 'self']


def public(thing):
    return {name for name in vars(thing) if not name.startswith('_')}


def test_the_package_says_that_it_is_typed():
    assert os.path.exists(os.path.join(FOLDER, 'py.typed'))


def test_the_stub_has_the_names_of_the_module():
    assert set(declared(stub())) == public(_kvkeep)
    for name, value in vars(_kvkeep).items():
        if name.isupper():
            assert type(value) is int, name


def test_the_stub_has_the_methods_and_their_parameters():
    (core,) = [node for node in stub() if isinstance(node, ast.ClassDef)]
    methods = declared(core.body)
    assert methods.pop('__init__') == has(_kvkeep.Core)
    assert set(methods) == public(_kvkeep.Core)
    for name, parameters in methods.items():
        if parameters is not None:
            assert parameters == has(getattr(_kvkeep.Core, name)), name
    for name, parameters in declared(stub()).items():
        if parameters is not None:
            assert parameters == has(getattr(_kvkeep, name)), name


def test_what_is_public_is_annotated():
    for name in kvkeep.__all__:
        thing = getattr(kvkeep, name)
        methods = [thing] if inspect.isfunction(thing) else [
            method for key, method in vars(thing).items() if inspect.isfunction(method) and not key.startswith('_')]
        for method in methods:
            hints = dict(method.__annotations__)
            assert 'return' in hints, method
            assert set(inspect.signature(method).parameters) - {'self'} <= set(hints), method


def test_no_ctypes():
    """It makes a type for every length and never lets go of it; numpy and torch bring it, the package does not."""
    code = 'import kvkeep, kvkeep.lmcache; print("ctypes" in sys.modules)'
    assert subprocess.check_output([sys.executable, '-S', '-c', f'import sys; sys.path.insert(0, {FOLDER + "/.."!r}); '
                                    + code]) == b'False\n'
