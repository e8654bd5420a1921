def last_word(s):
    return s.split()[-1]
