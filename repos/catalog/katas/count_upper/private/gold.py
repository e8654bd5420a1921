def count_upper(s):
    return sum(c.isupper() for c in s)
