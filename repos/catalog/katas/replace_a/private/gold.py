def replace_a(s):
    return s.replace('a', 'o')
