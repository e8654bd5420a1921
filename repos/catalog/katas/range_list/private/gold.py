def range_list(n):
    return list(range(1, n + 1))
