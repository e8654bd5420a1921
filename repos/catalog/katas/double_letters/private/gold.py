def double_letters(s):
    return ''.join(c * 2 for c in s)
