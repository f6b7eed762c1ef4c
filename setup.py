"""What runs once a reply, a key and an item is compiled; without a compiler, the same runs in Python."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(f"oneatatime.{name}", [f"src/oneatatime/{name}.c"], optional=True)
        for name in ("_compiled", "_skin")
    ]
)
