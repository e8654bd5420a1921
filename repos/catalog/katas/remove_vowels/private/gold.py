def remove_vowels(s):
    return ''.join(c for c in s if c not in 'aeiou')
