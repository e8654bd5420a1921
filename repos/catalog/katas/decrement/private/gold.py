def decrement(n):
    return n - 1
