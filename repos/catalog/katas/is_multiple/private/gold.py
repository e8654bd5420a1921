def is_multiple(a, b):
    return a % b == 0
