def quotient(a, b):
    return a // b
