def zeros(n):
    return [0] * n
