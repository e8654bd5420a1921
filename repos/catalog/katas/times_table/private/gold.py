def times_table(n):
    return [n * i for i in range(1, 11)]
