def first_n_chars(s, n):
    return s[:n]
