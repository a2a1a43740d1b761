"""The public name of `segkey.crypto.ciphers`: what a method of your own imports."""

from segkey.crypto.ciphers import *  # noqa: F403
from segkey.crypto.ciphers import __all__  # noqa: F401
