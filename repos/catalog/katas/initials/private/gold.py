def initials(first, last):
    return first[0] + last[0]
