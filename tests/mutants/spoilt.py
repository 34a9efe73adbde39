"""Have mutants and variants of spoiling.py by name: `M17` is wrong, `R17` and `Right` are right."""

from tests.mutants.spoiling import spoiler, spoilt, variant

Right = spoilt(None)
MAKERS = {"M": spoiler, "R": variant}


def __getattr__(name):
    if name[0] in MAKERS and name[1:].isdigit():
        found = globals()[name] = spoilt(MAKERS[name[0]](int(name[1:])))
        return found
    raise AttributeError(name)
