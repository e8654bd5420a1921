def all_but_last(items):
    return items[:-1]
