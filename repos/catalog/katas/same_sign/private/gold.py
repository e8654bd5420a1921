def same_sign(a, b):
    return a * b > 0
