def negation(flag):
    return not flag
