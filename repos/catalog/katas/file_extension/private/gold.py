def file_extension(filename):
    return filename.split('.')[-1]
