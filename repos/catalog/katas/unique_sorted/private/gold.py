def unique_sorted(items):
    return sorted(set(items))
