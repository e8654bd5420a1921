def ascii_code(c):
    return ord(c)
