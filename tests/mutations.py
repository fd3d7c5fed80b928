"""Harm that comes to files: bits, cuts, blocks of zeros, swaps, lines gone or doubled."""


def flip(content, name, chance):
    data = bytearray(content[name])
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return {name: bytes(data)}


def truncate(content, name, chance):
    return {name: content[name][: chance.randrange(len(content[name]))]}


def zero(content, name, chance):
    data = bytearray(content[name])
    start = chance.randrange(len(data))
    stop = min(len(data), start + chance.choice([1, 64, 512, 4096]))
    data[start:stop] = bytes(stop - start)
    return {name: bytes(data)}


def swap(content, name, chance):
    other = chance.choice([n for n in content if n.partition(".")[2] == name.partition(".")[2]])
    return {name: content[other], other: content[name]}


def drop_line(content, name, chance):
    lines = content[name].splitlines(keepends=True)
    del lines[chance.randrange(len(lines))]
    return {name: b"".join(lines)}


def double_line(content, name, chance):
    lines = content[name].splitlines(keepends=True)
    where = chance.randrange(len(lines))
    return {name: b"".join([*lines[:where], lines[where], *lines[where:]])}


def append(content, name, chance):
    return {name: content[name] + chance.randbytes(chance.choice([1, 9, 300]))}


MUTATIONS = (flip, flip, truncate, zero, swap, append, drop_line, double_line)


def mutated(content, chance):
    """Return the new bytes of the files of ``content`` that one mutation touches."""
    return chance.choice(MUTATIONS)(content, chance.choice(sorted(content)), chance)
