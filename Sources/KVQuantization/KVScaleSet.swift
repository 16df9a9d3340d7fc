/// The scales that a checkpoint or a file brings for the cache, as found: nothing is applied or converted yet.
public struct KVScaleSet: Hashable, Sendable {
  /// One scale as found.
  public struct Scale: Hashable, Sendable {
    /// Tensor or member it came from.
    public var name: String
    public var value: Float
    /// More than one for scales per channel or per head, of which `value` is the first.
    public var elementCount: Int

    public init(name: String, value: Float, elementCount: Int = 1) {
      self.name = name
      self.value = value
      self.elementCount = elementCount
    }
  }

  /// The scales of a layer; "none" is nil, never the value 1.
  public struct Layer: Hashable, Sendable {
    public var key: Scale?
    public var value: Scale?

    public init(key: Scale? = nil, value: Scale? = nil) {
      self.key = key
      self.value = value
    }
  }

  /// Keyed by the layer's index in the whole model.
  public var layers: [Int: Layer]
  /// nil where the source doesn't say.
  public var convention: KVScaleConvention?
  /// What scales are multiplied with before they are used: room above the largest magnitude that calibration saw.
  public var headroom: Float
  /// Where the convention is from, or why there is none; for messages.
  public var conventionReason: String
  /// Where the scales are from.
  public var source: String
  /// True where one deprecated `kv_scale` stood for keys and values.
  public var isShared: Bool

  public init(
    layers: [Int: Layer], convention: KVScaleConvention?, conventionReason: String, source: String,
    headroom: Float = 1, isShared: Bool = false
  ) {
    self.layers = layers
    self.convention = convention
    self.headroom = headroom
    self.conventionReason = conventionReason
    self.source = source
    self.isShared = isShared
  }

  public var isEmpty: Bool { layers.isEmpty }
  /// Scales of keys and of values together.
  public var count: Int { layers.values.reduce(0) { $0 + ($1.key == nil ? 0 : 1) + ($1.value == nil ? 0 : 1) } }
  /// Smallest and largest of all values.
  public var range: ClosedRange<Float>? {
    let values = layers.values.flatMap { [$0.key?.value, $0.value?.value] }.compactMap { $0 }.filter { !$0.isNaN }
    guard let low = values.min(), let high = values.max() else { return nil }
    return low...high
  }
}
