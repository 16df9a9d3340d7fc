import Engine

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Magnitudes of every layer on a logarithmic scale as an SVG: median, 99%, 99.9% and largest, keys beside values.
struct CalibrationDrawing {
  let calibration: Calibration

  init(_ calibration: Calibration) { self.calibration = calibration }

  private static let colors = ["#2b6cb0", "#dd6b20"]
  private static let (left, top, height, step) = (56, 46, 220, 26)
  /// The largest magnitude of a block whose E4M3 scale is still normal without a calibrated factor: 6 * 2^-6.
  private static let normalLimit = 0.09375

  var svg: String {
    let sides = calibration.layers.flatMap { [$0.key, $0.value] }
    let values = sides.flatMap { [$0.amax, $0.percentiles.half] }.filter { $0 > 0 }.map { log10(Double($0)) }
    // Whole decades around all values.
    let range = ((values.min() ?? 0).rounded(.down), (values.max() ?? 1).rounded(.up))
    func y(_ value: Double) -> Int {
      guard value > 0 else { return Self.top + Self.height }
      let share = (log10(value) - range.0) / max(1, range.1 - range.0)
      return Self.top + Self.height - Int((Double(Self.height) * min(1, max(0, share))).rounded())
    }
    let width = max(420, Self.left + sides.count * Self.step + 160)
    let bottom = Self.top + Self.height
    var parts = [
      #"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \#(width) \#(bottom + 44)" font-family="sans-serif" font-size="11">"#,
      #"<rect width="100%" height="100%" fill="white"/>"#,
      text(Self.left, 16, "Magnitudes by layer: median (solid), 99%, 99.9% and largest (palest)"),
    ]
    for (index, name) in sides.prefix(2).map(\.name).enumerated() {
      let x = Self.left + index * 80
      parts.append(#"<rect x="\#(x)" y="24" width="10" height="10" fill="\#(Self.colors[index])"/>"#)
      parts.append(text(x + 14, 33, name))
    }
    for decade in Int(range.0)...Int(range.1) {
      let value = pow(10, Double(decade))
      let label = (-6...6).contains(decade) ? value.decimals(max(0, -decade)) : "1e\(decade)"
      parts.append(line(y(value), width, "#ddd"))
      parts.append(text(Self.left - 6, y(value) + 4, label, anchor: "end"))
    }
    if log10(Self.normalLimit) > range.0 {
      parts.append(line(y(Self.normalLimit), width, "#c53030", dashed: true))
      parts.append(
        text(
          width - 12, y(Self.normalLimit) - 4, "subnormal where g = 1",
          anchor: "end"))
    }
    for (index, side) in sides.enumerated() {
      let x = Self.left + 6 + index * Self.step - (index % 2) * 6
      let marks = [
        (side.amax, 0.2), (side.percentiles.p999, 0.35), (side.percentiles.p99, 0.5), (side.percentiles.half, 1),
      ]
      for (value, opacity) in marks {
        let from = y(Double(value))
        parts.append(
          #"<rect x="\#(x)" y="\#(from)" width="18" height="\#(bottom - from)" fill="\#(Self.colors[index % 2])" "#
            + #"fill-opacity="\#(opacity)"/>"#)
      }
      if index % 2 == 0 { parts.append(text(x + 19, bottom + 16, "\(index / 2)", anchor: "middle")) }
    }
    parts.append(text(Self.left, bottom + 36, "layer; \(calibration.tokenCount) tokens"))
    return parts.joined(separator: "\n") + "\n</svg>\n"
  }

  private func text(_ x: Int, _ y: Int, _ text: String, anchor: String = "start") -> String {
    #"<text x="\#(x)" y="\#(y)" text-anchor="\#(anchor)">\#(text)</text>"#
  }

  private func line(_ y: Int, _ width: Int, _ color: String, dashed: Bool = false) -> String {
    #"<line x1="\#(Self.left)" x2="\#(width - 10)" y1="\#(y)" y2="\#(y)" stroke="\#(color)""#
      + (dashed ? #" stroke-dasharray="4 3"/>"# : "/>")
  }
}
