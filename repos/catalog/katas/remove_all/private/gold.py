def remove_all(items, x):
    return [i for i in items if i != x]
