"""The version, alone in a file so that building the package imports nothing."""

VERSION = "0.1.0"
