def all_equal(items):
    return all(i == items[0] for i in items)
