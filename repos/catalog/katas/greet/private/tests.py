def test_1(f):
    assert f('Ann') == 'Hello, Ann!'


def test_2(f):
    assert f('Bob') == 'Hello, Bob!'


def test_3(f):
    assert f('world') == 'Hello, world!'


def test_4(f):
    assert f('') == 'Hello, !'
