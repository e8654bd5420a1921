def int_to_string(n):
    return str(n)
