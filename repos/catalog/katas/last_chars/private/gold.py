def last_chars(words):
    return [w[-1] for w in words]
