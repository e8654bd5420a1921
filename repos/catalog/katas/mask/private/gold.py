def mask(s):
    return '*' * len(s)
