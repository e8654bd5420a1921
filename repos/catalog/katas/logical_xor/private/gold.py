def logical_xor(a, b):
    return a != b
