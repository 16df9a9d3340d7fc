import Engine

extension Double {
  /// With a fixed number of decimals, 15 at most; "-" for what is no number.
  func decimals(_ count: Int) -> String {
    let count = min(max(count, 0), 15)
    let scale = (0..<count).reduce(1) { result, _ in result * 10 }
    let scaled = (magnitude * Double(scale)).rounded()
    guard scaled < 0x1p62 else { return isFinite ? "\(self)" : "-" }
    let number = Int(scaled)
    let sign = self < 0 && number != 0 ? "-" : ""
    guard count > 0 else { return sign + String(number) }
    let part = String(number % scale)
    return sign + "\(number / scale)." + String(repeating: "0", count: count - part.count) + part
  }
}

extension Duration {
  /// As people read it.
  var milliseconds: String { (inSeconds * 1000).decimals(1) + " ms" }
}
