def test_1(f):
    assert f('hello', 2) == 'he'


def test_2(f):
    assert f('hello', 5) == 'hello'


def test_3(f):
    assert f('hello', 0) == ''


def test_4(f):
    assert f('python', 4) == 'pyth'
