def zip_dict(keys, values):
    return dict(zip(keys, values))
