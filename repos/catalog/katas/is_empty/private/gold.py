def is_empty(s):
    return s == ''
