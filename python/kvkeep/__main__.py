# SPDX-License-Identifier: Apache-2.0
"""python -m kvkeep VERB ...: the command `kvkeep`, which the package carries along."""

import os
import sys


def main() -> None:
    command = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'bin', 'kvkeep-command')
    try:
        os.execv(command, ['kvkeep', *sys.argv[1:]])
    except OSError as error:
        sys.exit(f'kvkeep: {command}: {error.strerror}')


if __name__ == '__main__':
    main()
