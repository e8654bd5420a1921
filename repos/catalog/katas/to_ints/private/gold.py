def to_ints(strings):
    return [int(s) for s in strings]
