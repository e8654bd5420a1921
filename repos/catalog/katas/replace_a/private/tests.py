def test_1(f):
    assert f('banana') == 'bonono'


def test_2(f):
    assert f('xyz') == 'xyz'


def test_3(f):
    assert f('') == ''


def test_4(f):
    assert f('a cat') == 'o cot'
