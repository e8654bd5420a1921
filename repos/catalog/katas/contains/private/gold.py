def contains(s, word):
    return word in s
