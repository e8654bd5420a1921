def test_1(f):
    assert f(['a', 'abc'], 2) == ['abc']


def test_2(f):
    assert f([], 1) == []


def test_3(f):
    assert f(['ab', 'cd'], 2) == []


def test_4(f):
    assert f(['one', 'three', 'seven'], 3) == ['three', 'seven']
